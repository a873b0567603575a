"""What runs leave behind: settings, metrics, evaluations and responses, one directory for each run."""
