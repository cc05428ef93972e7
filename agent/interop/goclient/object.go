//go:build !azidentity1_5

package main

import "github.com/Azure/azure-sdk-for-go/sdk/azidentity"

func objectID(value string) azidentity.ManagedIDKind { return azidentity.ObjectID(value) }
