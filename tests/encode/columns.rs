//! The columns that a server can have, as its own catalog tells them: every scalar type, with and
//! without modifiers, arrays of them, domains over them.

use crate::support::Database;

/// Types of the user's own, among them such whose casts from text are not their input functions,
/// and one whose modifier no cast applies.
const OWN: &str = "
CREATE TYPE mood AS ENUM ('sad', 'ok', '5');
CREATE TYPE frac AS RANGE (subtype = float8);
CREATE TYPE pair AS (span interval year, price numeric(7,2));
CREATE DOMAIN span AS interval year;
CREATE DOMAIN spans AS interval year[];
CREATE DOMAIN price AS numeric(7,2) CHECK (VALUE < 1000);
CREATE TYPE bill AS (span span, price price[]);

CREATE TYPE code;
CREATE FUNCTION code_in(cstring, oid, int4) RETURNS code LANGUAGE internal IMMUTABLE STRICT AS 'varcharin';
CREATE FUNCTION code_out(code) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'varcharout';
CREATE FUNCTION code_mod(cstring[]) RETURNS int4 LANGUAGE internal IMMUTABLE STRICT AS 'varchartypmodin';
CREATE FUNCTION code_mod(int4) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'varchartypmodout';
CREATE TYPE code (INPUT = code_in, OUTPUT = code_out, TYPMOD_IN = code_mod, TYPMOD_OUT = code_mod, LIKE = varchar);

CREATE TYPE email;
CREATE FUNCTION email_in(cstring) RETURNS email LANGUAGE internal IMMUTABLE STRICT AS 'textin';
CREATE FUNCTION email_out(email) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout';
CREATE FUNCTION email_recv(internal) RETURNS email LANGUAGE internal IMMUTABLE STRICT AS 'textrecv';
CREATE FUNCTION email_send(email) RETURNS bytea LANGUAGE internal IMMUTABLE STRICT AS 'textsend';
CREATE TYPE email (INPUT = email_in, OUTPUT = email_out, RECEIVE = email_recv, SEND = email_send, LIKE = text);

CREATE FUNCTION cast_mood(text) RETURNS mood LANGUAGE sql IMMUTABLE AS $$ SELECT 'sad'::mood $$;
CREATE FUNCTION cast_interval(text) RETURNS interval LANGUAGE sql IMMUTABLE AS $$ SELECT '99 years'::interval $$;
CREATE FUNCTION cast_ints(text) RETURNS int4[] LANGUAGE sql IMMUTABLE AS $$ SELECT '{99}'::int4[] $$;
CREATE FUNCTION cast_inet(text) RETURNS inet LANGUAGE sql IMMUTABLE AS $$ SELECT '9.9.9.9'::inet $$;
CREATE FUNCTION cast_code(text) RETURNS code LANGUAGE sql IMMUTABLE AS $$ SELECT 'cast'::code $$;
CREATE FUNCTION cast_jsonb(text) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$ SELECT '\"cast\"'::jsonb $$;
CREATE CAST (text AS mood) WITH FUNCTION cast_mood(text);
CREATE CAST (text AS interval) WITH FUNCTION cast_interval(text);
CREATE CAST (text AS int4[]) WITH FUNCTION cast_ints(text);
CREATE CAST (text AS inet) WITH FUNCTION cast_inet(text);
CREATE CAST (text AS code) WITH FUNCTION cast_code(text) AS ASSIGNMENT;
CREATE CAST (text AS jsonb) WITH FUNCTION cast_jsonb(text);
CREATE CAST (text AS email) WITHOUT FUNCTION;";

/// Types that come with the server's own extensions, where they are installed.
const EXTENSIONS: &str = "
DO $$
DECLARE wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['citext', 'hstore', 'ltree', 'cube', 'seg', 'isn'] LOOP
        IF EXISTS (SELECT FROM pg_available_extensions WHERE name = wanted) THEN
            EXECUTE format('CREATE EXTENSION %I', wanted);
        END IF;
    END LOOP;
END $$;";

/// All scalar types; for each the modifiers of a list that it takes. The long numbers are the
/// fields of an interval, a bit each (timestamp.h, INTERVAL_MASK).
const KINDS: &str = "
CREATE FUNCTION kinds() RETURNS TABLE (name text, of_array text) LANGUAGE plpgsql AS $$
DECLARE
    kind record;
    given text;
    modifier int4;
BEGIN
    FOR kind IN
        SELECT t.oid, t.typarray, t.typmodin FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid
        WHERE t.typtype IN ('b', 'c', 'e', 'm', 'r') AND t.typisdefined
          AND (t.typrelid = 0 OR c.relkind = 'c')
          AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid)
        ORDER BY t.oid
    LOOP
        RETURN QUERY SELECT format_type(kind.oid, -1), CASE WHEN kind.typarray <> 0 THEN format_type(kind.typarray, -1) END;
        CONTINUE WHEN kind.typmodin = 0;
        FOREACH given IN ARRAY ARRAY['0', '1', '3', '8', '5,2', '7,2', '5,-2', '3,5', '4', '2', '6', '1024', '2048',
            '4096', '1032', '3080', '7176', '3072', '7168', '6144', '4096,2', '32767,3']
        LOOP
            BEGIN
                EXECUTE format('SELECT %s(%L::cstring[])', kind.typmodin, '{' || given || '}') INTO modifier;
                RETURN QUERY SELECT format_type(kind.oid, modifier),
                    CASE WHEN kind.typarray <> 0 THEN format_type(kind.typarray, modifier) END;
            EXCEPTION WHEN OTHERS THEN
            END;
        END LOOP;
    END LOOP;
END $$;
CREATE TABLE kinds AS SELECT DISTINCT ON (name) * FROM kinds() ORDER BY name";

/// A type that a column can have.
#[derive(Debug, Clone, PartialEq)]
pub struct Kind {
    /// As SQL names it.
    pub sql: String,
    /// What of it the column has.
    pub wrap: Wrap,
    /// Whether its values are array literals.
    pub is_array: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Wrap {
    Itself,
    Domain,
    DomainOfDomain,
    ArrayOfDomain,
}

impl Kind {
    fn new(sql: impl Into<String>, wrap: Wrap, is_array: bool) -> Self {
        Kind {
            sql: sql.into(),
            wrap,
            is_array: is_array || wrap == Wrap::ArrayOfDomain,
        }
    }

    /// Made from what CREATE TABLE says.
    pub fn named(sql: &str) -> Self {
        Kind::new(sql, Wrap::Itself, sql.ends_with("[]"))
    }

    /// Makes the domains that it needs; what CREATE TABLE says.
    pub fn create(&self, database: &Database) -> &str {
        if self.wrap == Wrap::Itself {
            return &self.sql;
        }
        database.run(&format!(
            "DROP DOMAIN IF EXISTS dom CASCADE; CREATE DOMAIN dom AS {}; CREATE DOMAIN domdom AS dom",
            self.sql
        ));
        match self.wrap {
            Wrap::DomainOfDomain => "domdom",
            Wrap::ArrayOfDomain => "dom[]",
            _ => "dom",
        }
    }
}

/// Makes the user's own types and the extensions; gives all kinds.
pub fn make(database: &Database) -> Vec<Kind> {
    for sql in [EXTENSIONS, OWN, KINDS] {
        database.run(sql);
    }
    let mut kinds = Vec::new();
    for row in database.query("SELECT name, of_array FROM kinds ORDER BY name") {
        let scalar: String = row.get("name");
        for wrap in [
            Wrap::Itself,
            Wrap::Domain,
            Wrap::DomainOfDomain,
            Wrap::ArrayOfDomain,
        ] {
            kinds.push(Kind::new(&scalar, wrap, false));
        }
        if let Some(array) = row.get::<_, Option<String>>("of_array") {
            kinds.extend([Wrap::Itself, Wrap::Domain].map(|wrap| Kind::new(&array, wrap, true)));
        }
    }
    kinds.push(Kind::new("spans", Wrap::Itself, true));
    kinds
}
