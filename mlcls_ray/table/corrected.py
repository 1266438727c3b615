"""Views of a label table with corrections: `corrections` (all of them), `corrected` (what counts for each image), `labels` with both."""

from __future__ import annotations

import duckdb
import pyarrow as pa

CREATE_CORRECTIONS = "CREATE TABLE corrections AS SELECT * FROM correction_rows"
CORRECTED_OF = """
    CREATE MACRO corrected_of(view) AS TABLE
    WITH placed AS (
        SELECT *, row_number() OVER (
            PARTITION BY uri, content_hash ORDER BY number, corrected_at, correction_id
        ) AS place
        FROM query_table(view)
    ),
    counting AS (
        SELECT * FROM placed
        QUALIFY place > coalesce(max(place) FILTER (verdict = 'withdrawn') OVER (PARTITION BY uri, content_hash), 0)
    ),
    changed AS (
        SELECT uri, content_hash, label, arg_max(is_there, place) AS is_there
        FROM (
            SELECT uri, content_hash, place, true AS is_there,
                   unnest(list_filter(after, lambda label: NOT list_contains(before, label))) AS label
            FROM counting
            UNION ALL
            SELECT uri, content_hash, place, false AS is_there,
                   unnest(list_filter(before, lambda label: NOT list_contains(after, label))) AS label
            FROM counting
        ) GROUP BY ALL
    ),
    changes AS (
        SELECT uri, content_hash,
               coalesce(list(label) FILTER (is_there), []) AS added, coalesce(list(label) FILTER (NOT is_there), []) AS removed
        FROM changed GROUP BY ALL
    ),
    newest_correction AS (
        SELECT uri, content_hash, arg_max(struct_pack(after, verdict, corrected_by, corrected_at, seen_run := run_id), place) AS newest
        FROM counting GROUP BY ALL
    )
    SELECT image.uri, image.content_hash, newest.verdict, newest.corrected_by, newest.corrected_at, newest.seen_run,
           list_sort(list_distinct(list_concat(
               list_filter(newest.after, lambda label: NOT list_contains(coalesce(removed, []), label)), coalesce(added, [])
           ))) AS corrected_labels
    FROM newest_correction AS image
    LEFT JOIN changes ON changes.uri = image.uri AND changes.content_hash IS NOT DISTINCT FROM image.content_hash
"""
"""The corrections that count for each image and content: the newest verdict, and for each label the last action that changed it.

What lies before a `withdrawn` does not count. `view` has the columns of `corrections`."""
CORRECTED = "CREATE VIEW corrected AS FROM corrected_of('corrections')"
VOCABULARIES = """
    CREATE TABLE vocabularies AS
    SELECT run_id, list(label ORDER BY class_id) AS classes FROM thresholds GROUP BY run_id
"""
"""`classes`: the label of each class, which several classes may share, or null."""
LABELS = """
    CREATE VIEW labels AS
    WITH joined AS (
        SELECT image.*, image.labels AS model_labels, correction.verdict, correction.corrected_by, correction.corrected_at,
               correction.seen_run AS corrected_run, classes,
               CASE WHEN correction.verdict = 'labeled' THEN list_transform(corrected_labels, lambda label: struct_pack(
                   score := coalesce(
                       image.scores[nullif(list_position(image.labels, label), 0)],
                       list_max(list_transform(classes, lambda name, place: CASE WHEN name = label THEN image.all_scores[place] END))
                   ),
                   label := label
               )) END AS given
        FROM model_labels AS image
        LEFT JOIN corrected AS correction
          ON correction.uri = image.uri AND correction.content_hash IS NOT DISTINCT FROM image.content_hash
             AND image.status = 'ok'
        LEFT JOIN vocabularies ON vocabularies.run_id = image.run_id
    ),
    sorted AS (
        SELECT * REPLACE (list_sort(list_transform(given, lambda label: struct_pack(
            place := -coalesce(label.score, -1), label := label.label, score := label.score
        ))) AS given) FROM joined
    )
    SELECT * EXCLUDE (given, classes) REPLACE (
        CASE WHEN given IS NULL THEN labels ELSE list_transform(given, lambda label: label.label) END AS labels,
        CASE WHEN given IS NULL THEN scores ELSE list_transform(given, lambda label: label.score) END AS scores,
        CASE WHEN given IS NULL THEN class_ids
             ELSE list_transform(given, lambda label: (nullif(list_position(classes, label.label), 0) - 1)::SMALLINT) END AS class_ids
    )
    FROM sorted
"""
"""`labels` as people corrected it, in the columns that it has without; `model_labels` are the model's own.

A label's score is the model's, and null where the model has none for it; the class id is null where the vocabulary lacks the label."""


def create_corrections(database: duckdb.DuckDBPyConnection, rows: pa.Table) -> None:
    """Create the table `corrections` of rows in the schema `CORRECTIONS`, and the view `corrected`."""
    database.register("correction_rows", rows)
    database.execute(CREATE_CORRECTIONS)
    database.unregister("correction_rows")
    database.execute(CORRECTED_OF)
    database.execute(CORRECTED)


def correct_labels(database: duckdb.DuckDBPyConnection, rows: pa.Table) -> None:
    """Replace the view `labels`, and what is built on it, by the labels as people corrected them. Needs the table `thresholds`."""
    create_corrections(database, rows)
    database.execute(VOCABULARIES)
    database.execute("ALTER VIEW labels RENAME TO model_labels")
    database.execute(LABELS)
