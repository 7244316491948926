-- PostgreSQL's image runs this once, with psql, when it makes the database.
-- The owner of the tables migrates; the servers' role gets its privileges from
-- `lapse migrate --role lapse_server`, and may not change a table's shape.
\set ON_ERROR_STOP on
\set owner `cat /run/secrets/owner_password`
\set server `cat /run/secrets/server_password`
CREATE ROLE lapse_owner LOGIN PASSWORD :'owner';
CREATE ROLE lapse_server LOGIN PASSWORD :'server';
CREATE DATABASE lapse OWNER lapse_owner;
