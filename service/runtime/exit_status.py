"""The exit statuses of `earmark`; 0 says that all is done."""

SOME_FAILED = 1
WRONG_USAGE = 2
LIBRARY_UNUSABLE = 3
INTERRUPTED = 130  # by Ctrl-C: 128 and the number of the signal
# Of a job: an error that nobody expected, for which Python's own status is SOME_FAILED.
CRASHED = 70
