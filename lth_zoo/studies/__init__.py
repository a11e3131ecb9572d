"""Questions asked of a recipe's networks, one file each: jobs, a table, a picture, an answer."""
