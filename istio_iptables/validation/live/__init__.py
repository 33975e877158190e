"""The connections themselves: made, watched and looked up in this network namespace."""
