"""Plain data that crosses a wall of the house: quotas, the plugin protocol, the API's answers. No behaviour, no I/O."""
