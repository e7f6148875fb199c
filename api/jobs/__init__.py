"""Background jobs: `periodic` repeats its jobs, `started_runs` runs what a user starts."""
