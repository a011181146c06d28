-- What is called loaded is compared in full: every stretch has a checksum, also a merged one, and a
-- file is looked for by the checksums that its beginning has had. Stretches from before have none and prove
-- nothing.
ALTER TABLE pgrung.sources DROP COLUMN fingerprint,
    ADD COLUMN heads bigint[] NOT NULL DEFAULT '{}';
ALTER TABLE pgrung.spans DROP COLUMN checksum, ADD COLUMN checksum bigint;
ALTER TABLE pgrung.unlogged_spans DROP COLUMN checksum, ADD COLUMN checksum bigint;

-- Who deletes an import deletes all of it.
DELETE FROM pgrung.spans p WHERE NOT EXISTS
    (SELECT FROM pgrung.sources s WHERE s.import_id = p.import_id AND s.source = p.source);
DELETE FROM pgrung.unlogged_spans p WHERE NOT EXISTS
    (SELECT FROM pgrung.sources s WHERE s.import_id = p.import_id AND s.source = p.source);
DELETE FROM pgrung.rejects r WHERE NOT EXISTS
    (SELECT FROM pgrung.sources s WHERE s.import_id = r.import_id AND s.source = r.source);
DELETE FROM pgrung.unlogged_rejects r WHERE NOT EXISTS
    (SELECT FROM pgrung.sources s WHERE s.import_id = r.import_id AND s.source = r.source);
ALTER TABLE pgrung.spans ADD FOREIGN KEY (import_id, source)
    REFERENCES pgrung.sources ON DELETE CASCADE;
ALTER TABLE pgrung.unlogged_spans ADD FOREIGN KEY (import_id, source)
    REFERENCES pgrung.sources ON DELETE CASCADE;
ALTER TABLE pgrung.rejects ADD FOREIGN KEY (import_id, source)
    REFERENCES pgrung.sources ON DELETE CASCADE;
ALTER TABLE pgrung.unlogged_rejects ADD FOREIGN KEY (import_id, source)
    REFERENCES pgrung.sources ON DELETE CASCADE;
