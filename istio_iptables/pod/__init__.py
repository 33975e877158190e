"""pod: settings from the manifest of a pod, and what in it does not do what it says.

    text --> manifest (pods, typed) --+--> reading (settings, with where each came from)
                                      +--> lint (findings)
    settings --> container (an init container's arguments and its entry)

annotations.py is the one table of what Istio calls the settings in a pod. Nothing here reads a file.
"""

from .manifest import Container, Pod, pick, pods
from .reading import Reading, read_settings

__all__ = ["Container", "Pod", "Reading", "pick", "pods", "read_settings"]
