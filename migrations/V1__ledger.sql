-- The ledger: what was loaded, written in the transactions that loaded it.

-- One logical load over any number of runs.
CREATE TABLE pgrung.imports (
    import_id       text PRIMARY KEY,
    target          text NOT NULL,             -- schema and table, quoted
    target_oid      oid NOT NULL,
    target_filenode oid,                       -- storage; another one after TRUNCATE or a rewrite
    target_unlogged boolean NOT NULL,
    columns         text[] NOT NULL,           -- in the order of the fields
    reading         jsonb NOT NULL,            -- the reading options that shape rows
    epoch           bigint NOT NULL,           -- grows with each run: the fence against older runs
    started_at      timestamptz NOT NULL DEFAULT now(),
    run_at          timestamptz NOT NULL DEFAULT now(),
    finished_at     timestamptz
);

-- Inputs of an import. The fingerprint is NULL for pipes.
CREATE TABLE pgrung.sources (
    import_id   text NOT NULL REFERENCES pgrung.imports ON DELETE CASCADE,
    source      integer NOT NULL,
    name        text NOT NULL,
    fingerprint jsonb,
    epoch       bigint NOT NULL,
    finished_at timestamptz,
    PRIMARY KEY (import_id, source)
);

-- Byte ranges of the uncompressed source that are committed. No foreign key: the fence in the
-- same statement proves that the source is there.
CREATE TABLE pgrung.spans (
    import_id    text NOT NULL,
    source       integer NOT NULL,
    start_byte   bigint NOT NULL,
    end_byte     bigint NOT NULL,
    first_record bigint NOT NULL,
    records      bigint NOT NULL,
    lines        bigint NOT NULL,
    loaded       bigint,
    rejected     bigint,
    suppressed   bigint,
    checksum     text,                         -- XXH3-128 of the bytes; NULL once merged
    PRIMARY KEY (import_id, source, start_byte),
    CHECK (start_byte < end_byte)
);

-- Records that are not in the table, with all that helps to mend them.
CREATE TABLE pgrung.rejects (
    reject_id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    import_id       text NOT NULL,
    source          integer NOT NULL,
    start_byte      bigint NOT NULL,
    end_byte        bigint NOT NULL,
    record          bigint NOT NULL,           -- 1-based
    line            bigint NOT NULL,           -- 1-based
    sqlstate        text NOT NULL,
    column_name     text,
    constraint_name text,
    message         text NOT NULL,
    original        bytea NOT NULL,
    rejected_at     timestamptz NOT NULL DEFAULT now(),
    replayed_at     timestamptz
);
CREATE INDEX rejects_import_id ON pgrung.rejects (import_id, source, record);

-- Twins for unlogged targets: a server crash that empties the target empties these too, so they
-- never claim what is gone.
CREATE UNLOGGED TABLE pgrung.unlogged_spans (LIKE pgrung.spans INCLUDING ALL);
CREATE UNLOGGED TABLE pgrung.unlogged_rejects (LIKE pgrung.rejects INCLUDING ALL);
