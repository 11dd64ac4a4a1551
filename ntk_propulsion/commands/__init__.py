"""The command lines: options, progress, exit statuses."""
