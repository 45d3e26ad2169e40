"""The commands, one thin file each: parse, call a step, print."""
