"""How a machine becomes a member: invitations, the exchange, and the door it happens at."""
