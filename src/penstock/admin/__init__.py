"""The admin side: metrics and state on a listener of their own. Live; its libraries are imported when it starts."""
