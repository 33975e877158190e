"""The CNI plugin, called by runtimes that are not ours, or by one that keeps to the specification."""
