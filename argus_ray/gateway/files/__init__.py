"""The files of a task's job roots over HTTP: folders by pages, and downloads that can be resumed."""
