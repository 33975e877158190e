"""What has to change: the actions that turn the live state into the wanted one, and their order."""
