"""The language model that ships with nsd (`builtin:wordmath-1m`) and the recipe that makes it again."""
