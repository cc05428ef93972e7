//go:build azidentity1_5

package main

import "github.com/Azure/azure-sdk-for-go/sdk/azidentity"

// objectID: azidentity 1.5 cannot select by it, so no test asks for it.
func objectID(value string) azidentity.ManagedIDKind {
	panic("azidentity 1.5 has no ObjectID: " + value)
}
