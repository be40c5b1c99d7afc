"""GitHub Models, retired for everyone on 2026-07-30: the documented wire format, and a clear tombstone."""
