# Sourced by peers.sh and modes.sh: a private server on a Unix socket, gone with the script, with the
# default settings of its version; TPC-H lineitem; one timed run; what a report says of its surroundings.
# shellcheck shell=bash
export LC_ALL=C

PGRUNG=${PGRUNG:-target/release/pgrung}

fail() {
  echo "${0##*/}: $*" >&2
  exit 1
}

say() { echo "$*" >&2; }

[[ -x $PGRUNG ]] || fail "$PGRUNG is missing: cargo build --release"
PGRUNG=$(realpath "$PGRUNG")

# --- the server ---

find_programs() {
  local candidate
  for candidate in "${PGRUNG_PG_BIN:-}" "$(dirname "$(command -v initdb || echo .)")" \
    "$(pg_config --bindir 2>/dev/null || true)" $(printf '%s\n' /usr/lib/postgresql/*/bin | sort -rV); do
    if [[ -n $candidate && -x $candidate/initdb ]]; then
      echo "$candidate"
      return
    fi
  done
  fail "no initdb found: install PostgreSQL's server or set PGRUNG_PG_BIN"
}

BIN=$(find_programs)
PATH=$BIN:$PATH
command -v psql >/dev/null || fail "psql is missing: install PostgreSQL's client programs"

# PostgreSQL refuses to run as root.
as_server=()
[[ $EUID != 0 ]] || as_server=(setpriv --reuid=postgres --regid=postgres --init-groups)

DIR=$(mktemp -d "${TMPDIR:-/tmp}/pgrung-bench-XXXXXX")

clean_up() {
  [[ ! -e $DIR/data/postmaster.pid ]] ||
    (cd "$DIR" && "${as_server[@]}" pg_ctl stop -s -D "$DIR/data" -m immediate) || true
  rm -rf "$DIR"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# A row takes some 125 bytes as CSV, 150 in a table, 200 as binary, 200 in the log; each some twice.
need_space() { # ROWS
  local free_kib
  free_kib=$(df -Pk "$DIR" | awk 'NR == 2 { print $4 }')
  ((free_kib > 2000000 + $1)) || fail "$1 rows need $((2 + $1 / 1000000)) GB in $DIR; set TMPDIR"
}

start_server() {
  [[ $EUID != 0 ]] || chown postgres:postgres "$DIR"
  (
    cd "$DIR"
    "${as_server[@]}" initdb -D data -U postgres --auth=trust --encoding=UTF8 --locale=C \
      --no-sync >initdb.log 2>&1 || { cat initdb.log >&2 && exit 1; }
    "${as_server[@]}" pg_ctl start -s -w -D data -l server.log \
      -o "-c listen_addresses='' -c unix_socket_directories='$DIR'" || { cat server.log >&2 && exit 1; }
  ) || fail "the server does not start"
}

unset DATABASE_URL PGSERVICE PGHOSTADDR PGPASSWORD PGOPTIONS PGSSLMODE
export PGHOST=$DIR PGPORT=5432 PGUSER=postgres PGDATABASE=postgres

sql() { PGOPTIONS="-c client_min_messages=warning ${2:-}" psql -XqAt -v ON_ERROR_STOP=1 -c "$1"; }

# --- the rows ---

write_rows() { # ROWS FILE: CSV with a header; sets DEFINITION
  say "making $1 rows"
  cargo bench -q --bench lineitem -- "$1" "$2"
  DEFINITION=$(cargo bench -q --bench lineitem -- --columns)
}

# Does not depend on the order of the rows.
contents() { sql "SELECT count(*), sum(hash_record_extended(t, 0)) FROM lineitem t"; }

# --- one run ---

TIMEFORMAT='%R %U %S'

timed() { # NAME COMMAND...: sets seconds, user and system
  rm -f "$DIR/summary.json"
  { time "${@:2}" >"$DIR/run.log" 2>&1; } 2>"$DIR/time" || {
    cat "$DIR/run.log" >&2
    fail "$1 failed"
  }
  read -r seconds user system <"$DIR/time"
}

# The number of that name in the summary of the last run; nothing where there is none.
summary() {
  [[ ! -e $DIR/summary.json ]] || sed -n "s/.*\"$1\": *\([0-9][0-9.e-]*\).*/\1/p" "$DIR/summary.json"
}

# --- the report ---

# For awk: sets middle, least and most of numbers with spaces between.
SPREAD='
    function spread(list,   sort, count, i, j, value) {
      count = split(list, sort, " ")
      for (i = 2; i <= count; i++) {
        value = sort[i] + 0
        for (j = i - 1; j > 0 && sort[j] + 0 > value; j--) sort[j + 1] = sort[j]
        sort[j + 1] = value
      }
      middle = count % 2 ? sort[(count + 1) / 2] : (sort[count / 2] + sort[count / 2 + 1]) / 2
      least = sort[1] + 0
      most = sort[count] + 0
    }
'

surroundings() {
  local settings
  settings=$(sql "SELECT string_agg(name || ' ' || current_setting(name), ', ' ORDER BY name) FROM pg_settings
    WHERE name IN ('fsync', 'synchronous_commit', 'full_page_writes', 'shared_buffers', 'max_wal_size', 'wal_level', 'autovacuum')")
  cat <<END_OF_LINES
- Machine: $(getconf _NPROCESSORS_ONLN) cores, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo 2>/dev/null | sort -u | head -n 1), $(awk '/^MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo 2>/dev/null) memory; client and server share it.
- Server: PostgreSQL $(sql 'SHOW server_version'), Unix socket; $settings.
END_OF_LINES
}
