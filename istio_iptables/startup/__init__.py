"""What keeps the start cheap."""
