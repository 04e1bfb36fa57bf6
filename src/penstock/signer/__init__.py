"""The room that holds keys. It builds what it signs, from an intent, and remembers every intent for ever."""
