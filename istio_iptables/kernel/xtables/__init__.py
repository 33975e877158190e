"""The legacy tables of iptables through libiptc: entries as bytes, read and written."""
