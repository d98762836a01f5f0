"""meshd: the machines a household or a small team owns, answering as one."""

__version__ = "0.1.0"
