#!lua flags=allow-oom
-- close_tasks: remove the records of open tasks that were not stored after all.
--
-- KEYS[1] open tasks   KEYS[2] their owners
-- ARGV    tasks
-- Returns how many were recorded.
--@include open_tasks.lua
return close_tasks(KEYS[1], KEYS[2], ARGV)
