"""Sets up a VPC in moto, and keys with a policy; says what it made as JSON. By Amazon's own SDK."""

import json
import sys
import urllib.request

import boto3

endpoint, = sys.argv[1:]
trust = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Federated": "x"},
                                                            "Action": "sts:AssumeRoleWithWebIdentity"}]})


def client(service):
    return boto3.client(service, endpoint_url=endpoint, region_name="eu-central-1", aws_access_key_id="any",
                        aws_secret_access_key="any")


def policy(*actions):
    statement = {"Effect": "Allow", "Action": [f"ec2:{action}" for action in actions], "Resource": "*"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


WHOLE = ["DescribeRouteTables", "DescribeNetworkInterfaces", "CreateRoute", "ReplaceRoute", "DeleteRoute",
         "ModifyNetworkInterfaceAttribute"]

ec2, iam = client("ec2"), client("iam")
vpc = ec2.create_vpc(CidrBlock="192.168.0.0/16")["Vpc"]["VpcId"]
subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="192.168.77.0/24")["Subnet"]["SubnetId"]
interface = ec2.create_network_interface(SubnetId=subnet)["NetworkInterface"]["NetworkInterfaceId"]
tables = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["RouteTables"]


def user(name, *actions):
    iam.create_user(UserName=name)
    iam.put_user_policy(UserName=name, PolicyName="routes", PolicyDocument=policy(*actions))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return [key["AccessKeyId"], key["SecretAccessKey"]]


role = iam.create_role(RoleName="flannel", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
iam.put_role_policy(RoleName="flannel", PolicyName="routes", PolicyDocument=policy(*WHOLE))
made = {
    "vpc": vpc, "subnet": subnet, "interface": interface, "table": tables[0]["RouteTableId"], "role": role,
    "allowed": user("allowed", *WHOLE), "reader": user("reader", *WHOLE[:2]),
    "observer": user("observer", "DescribeRouteTables"),
}
# From now on signatures and policies are checked.
urllib.request.urlopen(urllib.request.Request(f"{endpoint}/moto-api/reset-auth", b"0", method="POST")).read()
print(json.dumps(made))
