"""When tasks that wait may start: ranges, from how long runs take and the one decision about admission. Pure."""
