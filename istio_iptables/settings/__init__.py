"""What may be written, and which Config it becomes: every setting and command is declared once."""
