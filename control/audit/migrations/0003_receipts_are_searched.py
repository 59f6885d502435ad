from django.db import migrations, models

import control.audit.models


class Migration(migrations.Migration):
    dependencies = [
        ("audit", "0002_receiptrecord_place_and_more"),
        ("fleet", "0001_initial"),
    ]

    # SQLite copies the table for each of the first three: indexes come last, so that none is built twice.
    operations = [
        migrations.RemoveConstraint(
            model_name="receiptrecord",
            name="one_receipt_per_id",
        ),
        migrations.AddField(
            model_name="receiptrecord",
            name="end",
            field=models.GeneratedField(
                db_persist=True,
                expression=control.audit.models.EndOf("text"),
                output_field=models.CharField(max_length=16),
            ),
        ),
        migrations.AddConstraint(
            model_name="receiptrecord",
            constraint=models.UniqueConstraint(fields=("receipt_id", "node"), name="one_receipt_per_id"),
        ),
        migrations.AddIndex(
            model_name="receiptrecord",
            index=models.Index(fields=["end"], name="receipts_by_end"),
        ),
        migrations.AddIndex(
            model_name="receiptrecord",
            index=models.Index(fields=["admitted_at"], name="receipts_by_time"),
        ),
        migrations.AddIndex(
            model_name="receiptrecord",
            index=models.Index(
                condition=models.Q(("verified", False)), fields=["id"], name="receipts_not_verified"
            ),
        ),
        migrations.AlterModelOptions(
            name="receiptrecord",
            options={"ordering": ["id"], "verbose_name": "receipt"},
        ),
    ]
