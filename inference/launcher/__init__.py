"""The launcher: starts cells on demand where systemd is not PID 1, with the same socket-activation protocol."""
