#!/usr/bin/env bash
# Measures pgrung beside psql \copy, server-side COPY, pgloader and pgbench: the same rows into
# fresh tables of the same definition, in interleaved rounds, on a private server with the default
# settings of its version. Every run's rows are compared with those that psql \copy stored.
# Markdown goes to stdout, progress to stderr, every single run to target/bench-peers.tsv.
set -euo pipefail
source "$(dirname "$0")/private.sh"

ROWS=${ROWS:-6000000}                     # lineitem rows
ROWS_SLOW=${ROWS_SLOW:-1000000}           # for multi-insert, unnest and pgloader: the first of them
ROWS_COMMIT=${ROWS_COMMIT:-10000}         # for a commit a row: the first row, so many times
ROUNDS=${ROUNDS:-3}
TABLES=${TABLES:-unlogged logged}
RUNS=target/bench-peers.tsv               # table, rows, name, round, seconds, client CPU, memory

for number in "$ROWS" "$ROWS_SLOW" "$ROWS_COMMIT" "$ROUNDS"; do
  [[ $number =~ ^[1-9][0-9]*$ ]] || fail "ROWS, ROWS_SLOW, ROWS_COMMIT and ROUNDS are numbers above 0"
done
for table in $TABLES; do
  [[ $table = logged || $table = unlogged ]] || fail "TABLES holds logged, unlogged, or both"
done
((ROWS_SLOW <= ROWS)) || ROWS_SLOW=$ROWS
command -v pgbench >/dev/null || fail "pgbench is missing: install PostgreSQL's client programs"
need_space "$ROWS"

# --- the rows: three files and the sums that psql \copy of them leaves ---

LARGE=$DIR/lineitem.csv
SMALL=$DIR/small.csv
SAME=$DIR/same.csv
declare -A rows_of=([$LARGE]=$ROWS [$SMALL]=$ROWS_SLOW [$SAME]=$ROWS_COMMIT) sum_of

fresh_table() { # logged | unlogged
  local kind=
  [[ $1 = logged ]] || kind=UNLOGGED
  sql "DROP TABLE IF EXISTS lineitem"
  sql "CREATE $kind TABLE lineitem $DEFINITION"
  sql "CHECKPOINT"
}

make_rows() {
  write_rows "$ROWS" "$LARGE"
  # awk and not head, which would break the pipe.
  awk -v last="$((ROWS_SLOW + 1))" 'NR <= last; NR > last { exit }' "$LARGE" >"$SMALL"
  awk -v times="$ROWS_COMMIT" 'NR == 1; NR == 2 { while (times-- > 0) print; exit }' "$LARGE" >"$SAME"
  local file
  for file in "$SAME" "$SMALL" "$LARGE"; do
    fresh_table unlogged
    psql_copy "$file"
    sum_of[$file]=$(contents)
    [[ ${sum_of[$file]} = "${rows_of[$file]}|"* ]] || fail "psql stored ${sum_of[$file]} rows of ${rows_of[$file]}"
  done
  # The table holds the large file now. A plain scan, so that the halves make up the whole.
  local half=$((ROWS / 2)) plain='-c max_parallel_workers_per_gather=0 -c synchronize_seqscans=off'
  sql "COPY lineitem TO '$DIR/whole.bin' (FORMAT binary)"
  sql "COPY (SELECT * FROM lineitem LIMIT $half) TO '$DIR/first.bin' (FORMAT binary)" "$plain"
  sql "COPY (SELECT * FROM lineitem OFFSET $half) TO '$DIR/second.bin' (FORMAT binary)" "$plain"
  # The first run shall not share the disk with these files.
  sync
}

# --- the contestants: each takes a file ---

psql_copy() { psql -Xq -v ON_ERROR_STOP=1 -c "\\copy lineitem from '$1' (format csv, header)"; }
server_csv() { sql "COPY lineitem FROM '$1' (FORMAT csv, HEADER)"; }
server_binary() { sql "COPY lineitem FROM '$DIR/whole.bin' (FORMAT binary)"; }
server_binary_two() {
  sql "COPY lineitem FROM '$DIR/first.bin' (FORMAT binary)" &
  local first=$!
  sql "COPY lineitem FROM '$DIR/second.bin' (FORMAT binary)" &&
    wait "$first"
}

pgrung_load() { # FILE FLAGS...
  "$PGRUNG" load "$1" --table lineitem --on-error stop --progress none --summary "$DIR/summary.json" "${@:2}"
}
auto_1() { pgrung_load "$1" --workers 1 --no-ledger; }
auto_2() { pgrung_load "$1" --workers 2 --no-ledger; }
# An id of its own: to the ledger, the same file in a new table is a doubtful case.
auto_2_ledger() { pgrung_load "$1" --workers 2 --import-id "run $((++imports))"; }
text_1() { pgrung_load "$1" --workers 1 --no-ledger --copy-format text; }
text_2() { pgrung_load "$1" --workers 2 --no-ledger --copy-format text; }
discard() { pgrung_load "$1" --workers 1 --no-ledger --strategy discard; }
multi_insert() { pgrung_load "$1" --workers 1 --no-ledger --strategy multi-insert --batch-rows 1000; }
unnest() { pgrung_load "$1" --workers 1 --no-ledger --strategy unnest --batch-rows 1000; }
commit_row() { pgrung_load "$1" --workers 1 --no-ledger --strategy insert --commit row; }

# The values are variables, so that -M prepared makes parameters of them.
pgbench_insert() {
  local -a values flags=()
  local index names=
  IFS=, read -ra values < <(sed -n 2p "$1")
  for index in "${!values[@]}"; do
    flags+=(-D "v$index=${values[index]//\"/}")
    names+=", :v$index"
  done
  echo "INSERT INTO lineitem VALUES (${names#, });" >"$DIR/insert.sql"
  pgbench -n -M prepared -c 1 -t "$ROWS_COMMIT" -f "$DIR/insert.sql" "${flags[@]}"
}

with_pgloader() {
  local names
  names=$(head -n 1 "$1")
  cat >"$DIR/lineitem.load" <<END
LOAD CSV
  FROM '$1' ($names)
  INTO postgresql://postgres@unix:$DIR:5432/postgres
  TARGET TABLE public.lineitem ($names)
  WITH skip header = 1, fields terminated by ',', fields optionally enclosed by '"', on error stop;
END
  pgloader --quiet --root-dir "$DIR/pgloader" "$DIR/lineitem.load"
}

# --- one run ---

imports=0

measure() { # TABLE FILE ROUND NAME FUNCTION
  local table=$1 file=$2 round=$3 name=$4 run=$5 seconds user system memory expected
  fresh_table "$table"
  timed "$name" "$run" "$file"
  expected=${sum_of[$file]}
  [[ $run != discard ]] || expected='0|'
  [[ $(contents) = "$expected" ]] || fail "$name: the table holds $(contents), expected $expected (rows|sum)"
  memory=$(summary peak_memory_bytes)
  printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$table" "${rows_of[$file]}" "$name" "$round" "$seconds" \
    "$(awk "BEGIN { print $user + $system }")" "${memory:-0}" >>"$RUNS"
  say "$table, round $round of $ROUNDS: $name: $seconds s"
}

round() { # TABLE ROUND
  local with=("$1" "$LARGE" "$2")
  measure "${with[@]}" 'psql \copy, csv' psql_copy
  measure "${with[@]}" 'server-side COPY, csv' server_csv
  measure "${with[@]}" 'server-side COPY, binary' server_binary
  measure "${with[@]}" 'two server-side COPY, binary' server_binary_two
  measure "${with[@]}" 'pgrung copy auto, 1 worker' auto_1
  measure "${with[@]}" 'pgrung copy auto, 2 workers' auto_2
  measure "${with[@]}" 'pgrung copy auto, 2 workers, ledger' auto_2_ledger
  measure "${with[@]}" 'pgrung copy text, 1 worker' text_1
  measure "${with[@]}" 'pgrung copy text, 2 workers' text_2
  measure "${with[@]}" 'pgrung discard' discard
  with=("$1" "$SMALL" "$2")
  measure "${with[@]}" 'psql \copy, csv, fewer rows' psql_copy
  measure "${with[@]}" 'pgrung multi-insert' multi_insert
  measure "${with[@]}" 'pgrung unnest' unnest
  ! command -v pgloader >/dev/null || measure "${with[@]}" 'pgloader' with_pgloader
  with=("$1" "$SAME" "$2")
  measure "${with[@]}" 'pgbench -M prepared, commit a row' pgbench_insert
  measure "${with[@]}" 'pgrung insert, commit a row' commit_row
}

# --- the report ---

# Ratios are formed within a round and then sorted: what slows a whole round slows both sides.
report() {
  awk -F '\t' -v tables="$TABLES" -v rounds="$ROUNDS" "$SPREAD"'
    function grouped(number,   text, left) {
      text = sprintf("%.0f", number)
      while (length(text) > 3) {
        left = "," substr(text, length(text) - 2) left
        text = substr(text, 1, length(text) - 3)
      }
      return text left
    }
    function ratio(table, name, base,   round, list) {
      for (round = 1; round <= rounds; round++)
        list = list " " seconds[table, base, round] / seconds[table, name, round]
      spread(list)
      return sprintf("%.2f (%.2f..%.2f)", middle, least, most)
    }
    function column_heads(first, columns,   i) {
      printf "| %s |", first
      for (i = 1; i <= kinds; i++) printf " %s |", kind[i]
      printf "\n|---|"
      for (i = 1; i <= kinds; i++) printf "---:|"
      print ""
    }
    function ratio_line(title, name, base,   i) {
      printf "| %s |", title
      for (i = 1; i <= kinds; i++) printf " %s |", ratio(kind[i], name, base)
      print ""
    }
    BEGIN { kinds = split(tables, kind, " ") }
    {
      seconds[$1, $3, $4] = $5
      all[$1, $3] = all[$1, $3] " " $5
      cpu[$1, $3] = cpu[$1, $3] " " $6
      if ($7 > memory[$1, $3]) memory[$1, $3] = $7
      if (!($3 in rows)) order[++names] = $3
      rows[$3] = $2
    }
    END {
      large = order[1]
      small = "psql \\copy, csv, fewer rows"
      column_heads("speed, psql \\copy csv of the same file = 1")
      for (i = 1; i <= names; i++) {
        name = order[i]
        if (name == large || name == small || name ~ /discard|commit a row/) continue
        ratio_line(name, name, rows[name] == rows[large] && name !~ /insert|unnest|pgloader/ ? large : small)
      }
      print ""
      column_heads("speed, one beside the other")
      ratio_line("copy auto, 2 workers, to two server-side COPY of binary halves", "pgrung copy auto, 2 workers", "two server-side COPY, binary")
      ratio_line("copy auto, 2 workers: ledger on, to off", "pgrung copy auto, 2 workers, ledger", "pgrung copy auto, 2 workers")
      ratio_line("insert, commit a row, to pgbench -M prepared -c 1", "pgrung insert, commit a row", "pgbench -M prepared, commit a row")
      print "\nMedian of the rounds (min..max), each ratio formed within its round.\n"
      print "| table | what | rows | seconds | rows/s | client CPU, µs a row | peak memory, MiB |"
      print "|---|---|---:|---:|---:|---:|---:|"
      for (k = 1; k <= kinds; k++)
        for (i = 1; i <= names; i++) {
          name = order[i]
          spread(cpu[kind[k], name])
          micros = middle * 1e6 / rows[name]
          spread(all[kind[k], name])
          printf "| %s | %s | %s | %.2f (%.2f..%.2f) | %s | %s | %s |\n", kind[k], name, grouped(rows[name]), middle, least, most, \
            grouped(rows[name] / middle), name ~ /server-side/ ? "" : sprintf("%.2f", micros), \
            memory[kind[k], name] ? sprintf("%.0f", memory[kind[k], name] / 1048576) : ""
        }
    }' "$RUNS"
  cat <<END

- Rows: TPC-H lineitem, 16 columns, no index; commit a row: the same row again and again.
$(surroundings)
- $("$PGRUNG" --version)$(! command -v pgloader >/dev/null || pgloader --version 2>/dev/null | sed -n '1s/pgloader version/, pgloader/p' | tr -d '"'), $ROUNDS interleaved rounds, $(date -u +%F).
END
}

mkdir -p target
: >"$RUNS"
start_server
make_rows
"$PGRUNG" migrate >/dev/null
for ((round = 1; round <= ROUNDS; round++)); do
  for table in $TABLES; do
    round "$table" "$round"
  done
done
report
