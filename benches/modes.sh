#!/usr/bin/env bash
# Measures pgrung's modes by key beside append, and beside the psql script that they stand in for: the
# same rows into logged tables with the primary key of the specification, in interleaved rounds, on a
# private server with the default settings of its version. Every run's table is compared with what the
# script left of the same start.
# Markdown goes to stdout, progress to stderr, every single run to target/bench-modes.tsv.
set -euo pipefail
source "$(dirname "$0")/private.sh"

ROWS_MODES=${ROWS_MODES:-1000000}         # lineitem rows
ROUNDS=${ROUNDS:-3}
MORE=${MORE:-0}                           # 1: the memory of four times the rows too
RUNS=target/bench-modes.tsv               # name, round, seconds, those of the summary, writers waited, WAL, memory

for number in "$ROWS_MODES" "$ROUNDS"; do
  [[ $number =~ ^[1-9][0-9]*$ ]] || fail "ROWS_MODES and ROUNDS are numbers above 0"
done
[[ $MORE = [01] ]] || fail "MORE is 0 or 1"
# Twice: there are the tables that runs start from, too.
need_space "$((ROWS_MODES * 2 * (MORE ? 4 : 1)))"

# --- the rows, the tables that runs start from, and what the script leaves of each ---

FILE=$DIR/lineitem.csv
declare -A left_of

# same and changed have all keys of the file; half every other one, and a tenth as many that it has not.
start_from() { # empty | same | changed | half
  local from
  case $1 in
    empty) from='whole WHERE false' ;;
    same) from=whole ;;
    changed) from=changed ;;
    half) from='changed WHERE (l_orderkey + l_linenumber) % 2 = 0 UNION ALL SELECT * FROM others' ;;
  esac
  sql "DROP TABLE IF EXISTS lineitem"
  sql "CREATE TABLE lineitem $DEFINITION"
  sql "INSERT INTO lineitem SELECT * FROM $from"
  sql "ALTER TABLE lineitem ADD PRIMARY KEY (l_orderkey, l_linenumber)"
  sql "VACUUM ANALYZE lineitem"
  sql "CHECKPOINT"
}

make_rows() { # ROWS
  local name start
  write_rows "$1" "$FILE"
  for name in whole changed others; do
    sql "DROP TABLE IF EXISTS $name"
    sql "CREATE UNLOGGED TABLE $name $DEFINITION"
  done
  sql "COPY whole FROM '$FILE' (FORMAT csv, HEADER)"
  sql "INSERT INTO changed SELECT * FROM whole"
  sql "UPDATE changed SET l_quantity = l_quantity + 1"
  sql "INSERT INTO others SELECT * FROM whole WHERE (l_orderkey + l_linenumber) % 20 = 0"
  sql "UPDATE others SET l_orderkey = -l_orderkey"
  SETTINGS=$(sql "SELECT string_agg(format('%1\$s = EXCLUDED.%1\$s', attname), ', ') FROM pg_attribute
    WHERE attrelid = 'whole'::regclass AND attnum > 0 AND attname NOT IN ('l_orderkey', 'l_linenumber')")
  for start in empty same changed half; do
    start_from "$start"
    timed "psql script, $start" script
    left_of[$start]=$(contents)
  done
  [[ ${left_of[empty]} = "$1|"* ]] || fail "the script stored ${left_of[empty]} rows of $1"
  # The first run shall not share the disk with these rows.
  sync
}

# --- the contestants ---

script() {
  psql -Xq -v ON_ERROR_STOP=1 <<END
BEGIN;
CREATE TEMPORARY TABLE staged (LIKE lineitem) ON COMMIT DROP;
\\copy staged from '$FILE' (format csv, header)
INSERT INTO lineitem SELECT * FROM staged
  ON CONFLICT (l_orderkey, l_linenumber) DO UPDATE SET $SETTINGS;
COMMIT;
END
}

pgrung_load() { # MODE FLAGS...
  "$PGRUNG" load "$FILE" --table lineitem --mode "$1" --progress none --summary "$DIR/summary.json" "${@:2}"
}
# An id of its own: to the ledger, the same file in a new table is a doubtful case.
append() { pgrung_load append --workers 2 --import-id "run $((++imports))"; }
upsert() { pgrung_load upsert --workers 2; }
upsert_batches() { pgrung_load upsert --workers 1 --merge batch --strategy copy; }
replace() { pgrung_load replace --workers 2; }
sync_all() { pgrung_load sync --workers 2; }

# --- one run ---

imports=0

measure() { # ROUND START NAME FUNCTION
  local round=$1 start=$2 name=$3 run=$4 seconds user system before log expected waited
  start_from "$start"
  before=$(sql "SELECT pg_current_wal_insert_lsn()")
  timed "$name" "$run"
  log=$(sql "SELECT pg_current_wal_insert_lsn() - '$before'")
  expected=${left_of[$start]}
  # Exactly the file, as if the table had been empty.
  [[ $run != replace && $run != sync_all ]] || expected=${left_of[empty]}
  [[ $(contents) = "$expected" ]] || fail "$name: the table holds $(contents), expected $expected (rows|sum)"
  waited=$(summary writers_waited_seconds)
  [[ $run != replace || -n $waited ]] || fail "$name: the summary says nothing of writers that waited"
  printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$name" "$round" "$seconds" "$(summary elapsed_seconds)" "$waited" \
    "$log" "$(summary peak_memory_bytes)" >>"$RUNS"
  say "round $round of $ROUNDS: $name: $seconds s"
}

round() { # ROUND
  measure "$1" empty 'append, empty table' append
  measure "$1" empty 'upsert, empty table' upsert
  measure "$1" half 'psql script, half the keys there' script
  measure "$1" half 'upsert, half the keys there' upsert
  measure "$1" half 'upsert batch by batch, half the keys there' upsert_batches
  measure "$1" same 'upsert, all rows there' upsert
  measure "$1" changed 'upsert, all rows change a column' upsert
  measure "$1" half 'replace' replace
  measure "$1" half 'sync' sync_all
}

# --- the report ---

# Ratios are formed within a round and then sorted: what slows a whole round slows both sides.
report() {
  awk -F '\t' -v rounds="$ROUNDS" -v more="$MORE" "$SPREAD"'
    function line(title, list, wanted, format) {
      spread(list)
      printf "| %s | " format " (" format ".." format ") | %s |\n", title, middle, least, most, wanted
    }
    function ratio(title, above, name, below, base, wanted, format,   round, list) {
      for (round = 1; round <= rounds; round++) list = list " " above[name, round] / below[base, round]
      line(title, list, wanted, format)
    }
    function memory_of(name) { line("peak memory of " name ", MiB", memory[name], "under 64", "%.0f") }
    {
      seconds[$1, $2] = $3
      elapsed[$1, $2] = $4
      waited[$1, $2] = $5
      log_bytes[$1, $2] = $6
      all[$1] = all[$1] " " $3
      logs[$1] = logs[$1] " " $6 / 1048576
      if ($7 != "") memory[$1] = memory[$1] " " $7 / 1048576
      if (!seen[$1]++) order[++names] = $1
    }
    END {
      script = "psql script, half the keys there"
      print "| what | measured | wanted |"
      print "|---|---:|---:|"
      ratio("upsert into an empty table: speed, append = 1", seconds, "append, empty table", seconds, "upsert, empty table", "0.6 or more", "%.2f")
      ratio("upsert, half the keys there: speed, psql script = 1", seconds, script, seconds, "upsert, half the keys there", "1.2 or more", "%.2f")
      ratio("upsert batch by batch, 1 worker, half the keys there: speed, psql script = 1", seconds, script, seconds, "upsert batch by batch, half the keys there", "", "%.2f")
      ratio("upsert of unchanged rows: WAL, all rows changing a column = 1", log_bytes, "upsert, all rows there", log_bytes, "upsert, all rows change a column", "under 0.05", "%.4f")
      ratio("replace: time that writers wait, whole run = 1", waited, "replace", elapsed, "replace", "under 0.5", "%.2f")
      memory_of("upsert, half the keys there")
      memory_of("sync")
      if (more) {
        memory_of("upsert, four times the rows")
        memory_of("sync, four times the rows")
      }
      print "\nMedian of the rounds (min..max), each ratio formed within its round.\n"
      print "| run | seconds | WAL, MiB | peak memory, MiB |"
      print "|---|---:|---:|---:|"
      for (i = 1; i <= names; i++) {
        spread(memory[order[i]])
        peak = memory[order[i]] ? sprintf("%.0f", most) : ""
        spread(logs[order[i]])
        size = sprintf("%.1f", middle)
        spread(all[order[i]])
        printf "| %s | %.2f (%.2f..%.2f) | %s | %s |\n", order[i], middle, least, most, size, peak
      }
    }' "$RUNS"
  cat <<END

- Rows: $ROWS_MODES of TPC-H lineitem, 16 columns, primary key (l_orderkey, l_linenumber), logged tables; pgrung with 2 workers and its ledger.
- Half the keys there, for replace and sync too: with another l_quantity, and a tenth as many rows that the file has not.
- psql script: \\copy into a temporary table, INSERT ... SELECT ... ON CONFLICT DO UPDATE of all other columns, in one transaction.
$(surroundings)
- $("$PGRUNG" --version), $ROUNDS interleaved rounds, $(date -u +%F).
END
}

mkdir -p target
: >"$RUNS"
start_server
"$PGRUNG" migrate >/dev/null
make_rows "$ROWS_MODES"
for ((round = 1; round <= ROUNDS; round++)); do
  round "$round"
done
if ((MORE)); then
  make_rows "$((4 * ROWS_MODES))"
  measure 1 half 'upsert, four times the rows' upsert
  measure 1 half 'sync, four times the rows' sync_all
fi
report
