"""Formats: a Ruleset as text, and iptables-save text as Tables. Nothing here touches the machine."""
