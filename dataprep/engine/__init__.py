"""Where the tasks of a build run, and the files that they share."""
