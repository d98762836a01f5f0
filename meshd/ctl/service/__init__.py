"""`meshctl service`: the daemon as a service of this machine, under systemd or launchd."""
