"""Pure rules of Argus: no Ray, no HTTP, no SQL, no clock, no randomness. Time and ids come in as arguments."""
