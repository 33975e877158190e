"""live: the facts of this machine that the checks need. Reading them changes nothing."""
