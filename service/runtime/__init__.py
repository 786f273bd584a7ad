"""Settings, logs, worker processes and Ray: what runs the rest."""
