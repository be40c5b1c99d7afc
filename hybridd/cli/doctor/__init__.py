"""The set-up check: each module looks at one side of the machine and returns findings. Works without a daemon."""
