"""pod: settings from the manifest of a pod, and findings about settings that do not do what they say.

    text --> manifest (pods, typed) --+--> reading (settings, and where each comes from)
                                      +--> lint (findings)
    settings --> container (an init container's arguments and its entry)

annotations.py is the table of the names that Istio gives to the settings in a pod. Nothing here reads a file.
"""

from .model import Container, Pod
from .reading import Reading, read_settings

__all__ = ["Container", "Pod", "Reading", "read_settings"]
