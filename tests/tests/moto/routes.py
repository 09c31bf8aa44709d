"""The routes of a table in moto, as JSON; by Amazon's own SDK."""

import json
import sys

import boto3

endpoint, table, key, secret = sys.argv[1:]
ec2 = boto3.client("ec2", endpoint_url=endpoint, region_name="eu-central-1", aws_access_key_id=key,
                   aws_secret_access_key=secret)
found = ec2.describe_route_tables(RouteTableIds=[table])["RouteTables"][0]["Routes"]
print(json.dumps({route["DestinationCidrBlock"]: route.get("NetworkInterfaceId") for route in found}))
