"""The CNI plugin: the rules of a pod, made by the container runtime instead of an init container.

    environment, standard input --> protocol (what is asked) --> configuration (the node's settings)
                                        |                            |
                      annotations, API --> pod --> decision --> rules (in the pod's network namespace)
                                        |
                                    plugin (the answer, the log, metrics)

The protocol is that of the CNI specification, https://www.cni.dev/docs/spec/. The plugin is started anew for
each call, so what a call does not need is imported late (startup/__init__.py).
"""
