"""The site of results: what the last runs of the commands have left in build/, page by page."""
