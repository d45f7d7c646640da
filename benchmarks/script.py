"""The original way: a plain PySpark script, submitted once for each year.

``spark-submit … script.py YEAR OUTPUT``; what it reads and writes to is named by its environment.
"""

import os
import sys

from pyspark.sql import SparkSession
from pyspark.sql import functions as F  # noqa: N812  # its name in PySpark's documentation


def main() -> None:
    """Read a year's table, aggregate it, write the result."""
    year, output = sys.argv[1:]
    spark = SparkSession.builder.appName(f"fares_{year}").getOrCreate()
    trips = (
        spark.read.format("bigquery")
        .option("table", os.environ["TAXI_TABLE_PREFIX"] + year)
        .option("parentProject", os.environ["GCP_PROJECT_ID"])
        .option("credentialsFile", os.environ["GOOGLE_APPLICATION_CREDENTIALS"])
        .option("bigQueryHttpEndpoint", os.environ["BIGQUERY_EMULATOR_HOST"])
        .option("bigQueryStorageGrpcEndpoint", os.environ["BIGQUERY_STORAGE_GRPC_ENDPOINT"])
        .load()
    )
    fares = (
        trips.where("passenger_count IS NOT NULL AND fare_amount > 0")
        .groupBy("passenger_count")
        .agg(
            F.count("*").alias("trips"),
            F.sum("fare_amount").alias("total_fare"),
            F.avg("fare_amount").alias("avg_fare"),
            F.avg("tip_amount").alias("avg_tip"),
            F.avg("trip_distance").alias("avg_distance"),
        )
        .orderBy("passenger_count")
    )
    fares.coalesce(1).write.mode("overwrite").parquet(output)
    spark.stop()


if __name__ == "__main__":
    main()
