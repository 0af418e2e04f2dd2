"""The commands: parse, call, print. One file for each command or close family of commands."""
