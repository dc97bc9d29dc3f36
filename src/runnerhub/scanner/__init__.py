"""The Scanner: what secrets pass through the hub, and what is in the images that it starts."""
