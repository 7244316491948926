-- The levels and the counts of all apps together, so that the overview reads no more rows with
-- twenty thousand apps than with one. Triggers keep the sums: whatever changes the row of an app
-- changes them in the same transaction.

CREATE TABLE lapse_levels_of_all (
  status TEXT NOT NULL PRIMARY KEY,
  sessions INTEGER NOT NULL
) WITHOUT ROWID;

INSERT INTO lapse_levels_of_all (status, sessions)
SELECT status, sum(sessions) FROM lapse_levels GROUP BY status;

CREATE TRIGGER lapse_levels_inserted AFTER INSERT ON lapse_levels
BEGIN
  INSERT INTO lapse_levels_of_all (status, sessions) VALUES (NEW.status, NEW.sessions)
  ON CONFLICT (status) DO UPDATE SET sessions = sessions + excluded.sessions;
END;

CREATE TRIGGER lapse_levels_updated AFTER UPDATE ON lapse_levels
BEGIN
  UPDATE lapse_levels_of_all SET sessions = sessions + NEW.sessions - OLD.sessions
  WHERE status = NEW.status;
END;

CREATE TRIGGER lapse_levels_deleted AFTER DELETE ON lapse_levels
BEGIN
  UPDATE lapse_levels_of_all SET sessions = sessions - OLD.sessions WHERE status = OLD.status;
END;

CREATE TABLE lapse_counted_of_all (
  at INTEGER NOT NULL,
  kind TEXT NOT NULL,
  sessions INTEGER NOT NULL,
  PRIMARY KEY (at, kind)
) WITHOUT ROWID;

INSERT INTO lapse_counted_of_all (at, kind, sessions)
SELECT at, kind, sum(sessions) FROM lapse_counted GROUP BY at, kind;

CREATE TRIGGER lapse_counted_inserted AFTER INSERT ON lapse_counted
BEGIN
  INSERT INTO lapse_counted_of_all (at, kind, sessions) VALUES (NEW.at, NEW.kind, NEW.sessions)
  ON CONFLICT (at, kind) DO UPDATE SET sessions = sessions + excluded.sessions;
END;

CREATE TRIGGER lapse_counted_updated AFTER UPDATE ON lapse_counted
BEGIN
  UPDATE lapse_counted_of_all SET sessions = sessions + NEW.sessions - OLD.sessions
  WHERE at = NEW.at AND kind = NEW.kind;
END;

CREATE TRIGGER lapse_counted_deleted AFTER DELETE ON lapse_counted
BEGIN
  UPDATE lapse_counted_of_all SET sessions = sessions - OLD.sessions
  WHERE at = OLD.at AND kind = OLD.kind;
  DELETE FROM lapse_counted_of_all WHERE at = OLD.at AND kind = OLD.kind AND sessions = 0;
END;
