"""What makes it move: the hub and its parts. Everything that decides is here, nothing that knows a technology."""
