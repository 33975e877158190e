"""Does it work: the connections that prove redirection, what they have to show, and what they showed."""
