"""How the kernel is told: each backend, the choice between them, routes, locks and namespaces."""
